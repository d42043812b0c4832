"""The command lines of d2serve: `make help` lists them."""

"""HTTP requests -> images and options."""

"""d2serve: serves Detectron2 models. Everything in this package ships inside a model archive."""

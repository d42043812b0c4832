"""An ML backend for Label Studio: a web server that predicts the labels of its tasks."""

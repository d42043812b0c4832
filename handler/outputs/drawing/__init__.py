"""What is drawn on a picture: one file a kind."""

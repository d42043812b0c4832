"""The playground: a web page that sends images to a server and draws the detections."""

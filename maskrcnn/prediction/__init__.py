"""`maskrcnn predict`: images and videos in, documents, views and tables out, in runs that can be interrupted."""

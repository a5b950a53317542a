"""Daily use: files, folders, globs and videos to documents, overlays and tables, in runs that can be killed."""

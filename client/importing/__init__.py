"""A hospital's own files on their way to the key store: a manifest, pictures of several formats, one image shape."""

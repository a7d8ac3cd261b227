"""Images and image folders."""

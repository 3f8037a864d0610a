"""Image, points and transform files: recognised by their content, checked, and written whole or not at all."""

"""Code that the lint tests share."""

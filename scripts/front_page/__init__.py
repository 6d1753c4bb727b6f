"""Makes the pages of front/ from one template and one catalogue of sentences per language."""

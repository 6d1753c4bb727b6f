"""The languages of the pages: one catalogue of sentences per language, which the page's scripts read too."""

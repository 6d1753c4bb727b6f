"""Write front/index.html and front/de/index.html: ``python -m scripts.front_page``."""

from scripts.front_page.pages import write_pages

write_pages()

"""What the project claims about speed, memory and seams, measured side by side on the machine at hand."""

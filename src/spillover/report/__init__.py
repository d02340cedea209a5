"""What a person looks at in the end: the figure, and the page with every number and every answer behind it."""

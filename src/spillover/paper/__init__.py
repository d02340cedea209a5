"""What the paper claims, held against what came out here; the page that says so."""

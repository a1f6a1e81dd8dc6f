"""What was found and measured -> pages for people."""

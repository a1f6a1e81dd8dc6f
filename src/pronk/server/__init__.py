"""An opened model -> a page and a REST interface on this machine; no training framework is imported."""

"""The labeling app over REST, a module for each family of paths."""

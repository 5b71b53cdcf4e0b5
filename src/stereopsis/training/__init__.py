"""Lightning and Hydra: any registered network on any source."""

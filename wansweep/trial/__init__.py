"""Running one case on its ranks. The only home of diffusers."""

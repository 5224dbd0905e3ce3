"""Export of trained models: merged, in this project's layout or the release's, and pushed to the hub."""

"""The picture of `search_quality.py`: hypervolume over evaluations."""

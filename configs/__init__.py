"""The Hydra groups of SpectraMind NB, shipped as package data."""

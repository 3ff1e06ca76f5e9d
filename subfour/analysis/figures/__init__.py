"""Figures as SVG, from plain numbers: the only folder that knows matplotlib."""

"""The report's charts: plain Plotly data, and the geometry of forest plots inside tables.

Colours are mid-tones that hold on a light and on a dark page; text and grid are left to the
page's own style sheet. Figures carry `meta` per trace, by which the page filters.
"""

"""The charts of a report, drawn as SVG that takes its colours from the page. One file each."""

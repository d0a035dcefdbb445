"""An index of videos or images, and what is asked of it: a query's items, a video's moments, a page."""

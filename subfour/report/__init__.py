"""The page that shows what a run did, and why; and the page that compares the runs of a study."""

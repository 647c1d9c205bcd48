"""Files about comparisons: a page between two targets, JUnit and Markdown for CI."""

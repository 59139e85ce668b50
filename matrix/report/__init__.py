"""Reports of a run: one page of HTML, JUnit XML, a Markdown summary, and badges."""

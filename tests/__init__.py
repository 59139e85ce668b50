"""The tests of wizgy: `conftest.py` says which server and which app they run against."""

"""What a client library can say to every route, whichever framework and server answer it."""

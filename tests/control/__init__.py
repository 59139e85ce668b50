"""Each app in process, with no server: what fails here is the app's own fault, never a server's."""

//! Against a server that is scripted here, request by request.

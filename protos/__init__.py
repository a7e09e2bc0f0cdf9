"""The gRPC contract between coordinator and sites, and the code generated from it."""

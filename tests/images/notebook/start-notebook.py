#!/usr/bin/env python3
"""Serves the files of the working directory at the port of the notebook."""
import http.server
import os

port = int(os.environ["JUPYTER_PORT"])
http.server.test(http.server.SimpleHTTPRequestHandler, port=port, bind="0.0.0.0")

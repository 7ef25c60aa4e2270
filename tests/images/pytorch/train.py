"""Counts epochs in the file system, as training that writes checkpoints, and goes on where it was stopped."""

import pathlib
import signal
import threading

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())

checkpoint = pathlib.Path("checkpoint")
epoch = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
checkpoint.write_text(str(epoch))
print(f"epoch {epoch}", flush=True)
stopped.wait()

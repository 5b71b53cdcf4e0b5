"""Networks as ONNX and OpenVINO files, each with the proof that it gives what the original gives."""

"""A site's predictor as one ONNX file, for programs that know nothing of this one."""

"""MobileNetV2, described once: its weights, as ONNX graph and as Keras model."""

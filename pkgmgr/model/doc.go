// Package model knows models without storing them: it reads the names that people give
// models ([ParseRef]), asks a model hub which files a model consists of ([Hub],
// [Choose]), and estimates the memory that a model takes from the header of its GGUF file
// or the config.json beside its safetensors ([EstimateMemory]).
package model

//! CustomResourceDefinitions, generated from the types.

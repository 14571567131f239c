//! `networking.istio.io`: one file a kind.

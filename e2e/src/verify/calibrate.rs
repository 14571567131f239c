//! How fast this machine is, where nobody waits in front of it: a machine that is so slow that a layer
//! could not end says so instead of being ended from outside.

use std::{
    env, fs, hint,
    time::{Duration, Instant},
};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::{layer_name, totals::Totals};
use crate::{args::Layer, steps::Steps};

/// What [`work`] took on the machine that the estimates below are from: two cores, a local disk.
const REFERENCE: Duration = Duration::from_millis(1500);
/// Below this, slowness is noise.
const TOLERATED: f64 = 4.0;
const LIMIT: Duration = Duration::from_mins(80);

/// The layers that fit; the others are named.
pub fn fitting(layers: &[Layer], steps: &mut Steps, totals: &mut Totals) -> Result<Vec<Layer>> {
    if env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1") {
        let taken = steps.run("how fast is this machine", best_of_three)?;
        let slowdown = taken.as_secs_f64() / REFERENCE.as_secs_f64();
        steps.say(&format!("        {slowdown:.1} times the time of the reference machine"));
        let (run, skipped) = choose(layers, slowdown);
        for layer in skipped {
            steps.say(&format!("not run: machine too slow: {}", layer_name(layer)));
            totals.skipped();
        }
        return Ok(run);
    }
    Ok(layers.to_vec())
}

fn choose(layers: &[Layer], slowdown: f64) -> (Vec<Layer>, Vec<Layer>) {
    if slowdown < TOLERATED {
        return (layers.to_vec(), Vec::new());
    }
    let mut used = Duration::ZERO;
    layers.iter().copied().partition(|layer| {
        let time = estimate(*layer).mul_f64(slowdown);
        let fits = used + time <= LIMIT;
        if fits {
            used += time;
        }
        fits
    })
}

/// Time of a layer from nothing on the reference machine, with what it builds first.
fn estimate(layer: Layer) -> Duration {
    Duration::from_secs(match layer {
        Layer::Fmt | Layer::Chart => 10,
        Layer::Clippy => 240,
        Layer::Deny => 180,
        Layer::Unit => 420,
        Layer::Envoy | Layer::Netns => 120,
        Layer::Cluster => 900,
    })
}

fn best_of_three() -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        best = best.min(work()?);
    }
    Ok(best)
}

/// A fixed piece of work of both kinds: computing, and writing many files.
fn work() -> Result<Duration> {
    let started = Instant::now();
    let block = vec![7_u8; 1 << 20];
    let mut hash = Sha256::new();
    for _ in 0..64 {
        hash.update(hint::black_box(&block));
    }
    hint::black_box(hash.finalize());
    let folder = env::temp_dir().join(format!("meshwright-calibrate-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    for number in 0..2000 {
        fs::write(folder.join(number.to_string()), &block[..16 << 10])?;
    }
    fs::remove_dir_all(folder)?;
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_very_slow_machine_leaves_layers_out() {
        let layers = [Layer::Fmt, Layer::Unit, Layer::Cluster];
        assert_eq!(choose(&layers, 3.9).0, layers);
        assert_eq!(choose(&layers, 4.0), (vec![Layer::Fmt, Layer::Unit], vec![Layer::Cluster]));
    }
}

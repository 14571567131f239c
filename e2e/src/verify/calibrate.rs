//! How fast this machine is, where nobody waits in front of it: a machine that is so slow that a layer
//! could not end says so instead of being ended from outside.

use std::{
    env, fs, hint,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{layer_name, totals::Totals};
use crate::{
    args::Layer,
    cache::Cache,
    steps::{Steps, seconds},
    tools::{Tool, Tools},
};

/// What [`work`] took on the machine that the estimates below are from: two cores, a local disk.
const REFERENCE: Duration = Duration::from_millis(800);
/// Below this, slowness is noise.
const TOLERATED: f64 = 4.0;
const LIMIT: Duration = Duration::from_mins(80);

/// The layers that fit; the others are named.
pub fn fitting(
    cache: &Cache,
    layers: &[Layer],
    steps: &mut Steps,
    totals: &mut Totals,
) -> Result<Vec<Layer>> {
    if env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1") {
        let taken = steps.run("how fast is this machine", best_of_three)?;
        let slowdown = taken.as_secs_f64() / REFERENCE.as_secs_f64();
        steps.say(&format!(
            "        {}, {slowdown:.1} times the time of the reference machine",
            seconds(taken)
        ));
        let (run, skipped) =
            choose(layers, slowdown, Tools::new(cache).missing(&Tool::CLUSTER)?.is_empty());
        for layer in skipped {
            steps.say(&format!("not run: machine too slow: {}", layer_name(layer)));
            totals.skipped();
        }
        return Ok(run);
    }
    Ok(layers.to_vec())
}

fn choose(layers: &[Layer], slowdown: f64, has_tools: bool) -> (Vec<Layer>, Vec<Layer>) {
    if slowdown < TOLERATED {
        return (layers.to_vec(), Vec::new());
    }
    let mut used = Duration::ZERO;
    layers.iter().copied().partition(|layer| {
        let time = estimate(*layer, has_tools).mul_f64(slowdown);
        let fits = used + time <= LIMIT;
        if fits {
            used += time;
        }
        fits
    })
}

/// Time of a layer on the reference machine, with what it compiles first.
fn estimate(layer: Layer, has_tools: bool) -> Duration {
    Duration::from_secs(match layer {
        Layer::Fmt => 10,
        Layer::Chart => 60,
        Layer::Clippy => 240,
        Layer::Deny => 180,
        Layer::Unit => 420,
        Layer::Envoy | Layer::Netns => 120,
        Layer::Fuzz => 1200,
        Layer::Cluster | Layer::Measure if has_tools => 1500,
        Layer::Cluster | Layer::Measure => 2000,
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
    // Not SHA-256, which some processors do ten times as fast as others of the same speed.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for number in 0..30_000_000_u64 {
        hash = (hash ^ hint::black_box(number)).wrapping_mul(0x0100_0000_01b3);
    }
    hint::black_box(hash);
    let block = [7_u8; 16 << 10];
    let folder = env::temp_dir().join(format!("meshwright-calibrate-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    for number in 0..2000 {
        fs::write(folder.join(number.to_string()), block)?;
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
        assert_eq!(choose(&layers, 3.9, false).0, layers);
        for has_tools in [true, false] {
            assert_eq!(
                choose(&layers, 4.0, has_tools),
                (vec![Layer::Fmt, Layer::Unit], vec![Layer::Cluster])
            );
        }
    }
}

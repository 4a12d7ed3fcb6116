//! The policy of the configuration file: closed where it fails.

use anyhow::{Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::Item;
use cofferdam_tests::{Cofferdam, require};
use serde_json::json;

use crate::bench::{Bench, setuid};

const REPORTING: &str = "
[[policy]]
images = ['oci:**']
inspect = ['setuid-policy']
[policy.settings.setuid-policy]
mode = 'report'
";

#[test]
fn a_plugin_that_is_required_and_not_there_refuses_the_image() -> Result<()> {
    let mut bench = Bench::new()?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    let config = bench.config(REPORTING)?.display().to_string();
    let refused = bench.cofferdam.fails(exit::NOT_FOUND, ["pull", &image, "--config", &config])?;
    ensure!(refused.err().contains("setuid-policy"), "{}", refused.err());
    bench.cofferdam.fails(exit::NOT_FOUND, ["unpack", &image, &out(&bench), "--config", &config])?;
    ensure!(!bench.scratch.join("out").exists(), "a root filesystem was made");
    // Of another world.
    bench.add("xz")?;
    let config = bench.config(&REPORTING.replace("setuid-policy", "xz"))?.display().to_string();
    bench.cofferdam.fails(exit::USAGE, ["pull", &image, "--config", &config])?;
    Ok(())
}

fn out(bench: &Bench) -> String {
    bench.scratch.join("out").display().to_string()
}

/// What was decided is kept with the image, shown, and asked for again when the image is used.
#[test]
fn the_decision_is_kept_with_the_image() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("setuid-policy")?;
    let image = bench.image("v1", &[setuid("su")])?;
    let config = bench.config(REPORTING)?.display().to_string();
    bench.cofferdam.ok(["pull", &image])?;
    ensure!(bench.inspect(&image)?["decision"].is_null(), "nobody was asked");
    let digest = bench.inspect(&image)?["image"]["manifest_digest"].as_str().unwrap_or_default().to_owned();
    // It was let in before there was a policy.
    let refused = bench.cofferdam.fails(exit::REFUSED, ["unpack", &digest, &out(&bench), "--config", &config])?;
    ensure!(refused.err().contains("setuid-policy"), "{}", refused.err());
    bench.cofferdam.fails(exit::REFUSED, ["mount-spec", &digest, "--config", &config])?;
    bench.cofferdam.ok(["pull", &image, "--config", &config])?;
    let decision = bench.inspect(&image)?["decision"].clone();
    ensure!(decision["rule"] == "oci:**" && decision["verdicts"][0]["plugin"] == "setuid-policy", "{decision}");
    bench.cofferdam.ok(["unpack", &digest, &out(&bench), "--config", &config])?;
    bench.cofferdam.ok(["mount-spec", &digest, "--config", &config])?;
    // With other settings it is another question.
    let strict = bench.config(&REPORTING.replace("'report'", "'refuse'"))?.display().to_string();
    let other = bench.scratch.join("other").display().to_string();
    bench.cofferdam.fails(exit::REFUSED, ["unpack", &digest, &other, "--config", &strict])?;
    bench.cofferdam.fails(exit::REFUSED, ["pull", &image, "--config", &strict])?;
    // The image stays as it was let in.
    ensure!(bench.inspect(&image)?["decision"] == decision, "{}", bench.inspect(&image)?);
    Ok(())
}

/// An image of a layout is let in by the store, where the decision is kept.
#[test]
fn a_layout_is_unpacked_by_way_of_the_store() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("setuid-policy")?;
    let image = bench.image("v1", &[setuid("su")])?;
    let config = bench.config(REPORTING)?.display().to_string();
    bench.cofferdam.ok(["unpack", &image, &out(&bench), "--config", &config])?;
    ensure!(bench.scratch.join("out/su").exists(), "no root filesystem");
    ensure!(!bench.inspect(&image)?["decision"].is_null(), "no decision");
    Ok(())
}

#[test]
fn the_first_rule_counts_and_may_refuse() -> Result<()> {
    let mut bench = Bench::new()?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    let config = bench.config("[[policy]]\nimages = ['**']\nrefuse = 'not from here'\n")?.display().to_string();
    for verb in [vec!["pull", &image], vec!["unpack", &image, &out(&bench)]] {
        let refused = bench.cofferdam.fails(exit::REFUSED, verb.into_iter().chain(["--config", &config]))?;
        ensure!(refused.err().contains("not from here"), "{}", refused.err());
    }
    let before = format!(
        "[[policy]]\nimages = ['oci:{}**']\n[[policy]]\nimages = ['**']\nrefuse = 'no'\n",
        bench.layout.dir().display()
    );
    let config = bench.config(&before)?.display().to_string();
    bench.cofferdam.ok(["pull", &image, "--config", &config])?;
    Ok(())
}

/// What is mistyped is no policy that lets everything in.
#[test]
fn a_policy_that_cannot_be_read_stops_everything() -> Result<()> {
    let mut bench = Bench::new()?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    for text in [
        "[[policy]]\nimages = []\n",
        "[[policy]]\nimages = ['a[']\n",
        "[[policy]]\nimages = ['debian']\nrefuse = 'x'\n",
        "[[policy]]\nimages = ['index.docker.io/**']\nrefuse = 'x'\n",
        "[[policy]]\nimage = ['**']\n",
        "[[policy]]\nimages = ['**']\nverfy = ['cosign']\n",
        "[[policy]]\nimages = ['**']\nrefuse = 'x'\nverify = ['cosign']\n",
        "[[policy]]\nimages = ['**']\n[policy.settings.cosign]\nkey = 'x'\n",
        "[[policy]]\nimages = ['**']\nverify = ['cosign']\n[policy.settings.cosign]\nkey = 7\n",
        "[policy]\nimages = ['**']\n",
    ] {
        let config = bench.config(text)?.display().to_string();
        bench.cofferdam.fails(exit::USAGE, ["pull", &image, "--config", &config])?;
    }
    let config = bench.config(
        "[[policy]]\nimages = ['**']\nverify = ['c']\n[policy.settings.c]\nkey = { file = '/no/such/file' }\n",
    )?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["pull", &image, "--config", &config.display().to_string()])?;
    // A setting that nobody reads is one that somebody meant.
    bench.add("setuid-policy")?;
    let config = bench.config(&REPORTING.replace("mode =", "mdoe ="))?.display().to_string();
    let refused = bench.cofferdam.fails(exit::USAGE, ["pull", &image, "--config", &config])?.has_hint()?;
    ensure!(refused.err().contains("mdoe") && refused.err().contains("mode"), "{}", refused.err());
    ensure!(bench.cofferdam.ok(["images", "--json"])?.json()?["images"] == json!([]), "an image was let in");
    Ok(())
}

/// What the machine's configuration closes, no file of the user's opens.
#[test]
fn the_rules_of_the_machine_come_first() -> Result<()> {
    require!("root", "unshare", "mount");
    let mut bench = Bench::new()?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    let etc = bench.scratch.dir("etc/cofferdam")?;
    std::fs::write(etc.join("config.toml"), "[[policy]]\nimages = ['oci:**']\nrefuse = 'by the machine'\n")?;
    let config = bench.config("[[policy]]\nimages = ['**']\n[limits]\nentries = 5\n")?.display().to_string();
    bench.cofferdam.ok(["pull", &image, "--config", &config])?;
    let bind = format!("mount --bind {} /etc && exec \"$@\"", bench.scratch.join("etc").display());
    let confined = Cofferdam::new(bench.scratch.join("other"))?.by(&["unshare", "--mount", "sh", "-c", &bind, "sh"]);
    for more in [&["--config", &*config][..], &[]] {
        let refused = confined.fails(exit::REFUSED, ["pull", &image].iter().chain(more))?;
        ensure!(refused.err().contains("by the machine"), "{}", refused.err());
    }
    Ok(())
}

/// A plugin that is required has all that it asks for but servers, or is not asked at all.
#[test]
fn a_required_plugin_lacks_nothing() -> Result<()> {
    let mut bench = Bench::new()?;
    let dir = bench.scratch.dir("needy")?;
    let example = cofferdam_tests::plugins::example("setuid-policy")?;
    std::fs::copy(example.join("setuid_policy.wasm"), dir.join("needy.wasm"))?;
    let manifest = "name = 'needy'\nversion = '1'\nworld = 'inspector'\n[capabilities]\nread = ['/etc']\n";
    std::fs::write(dir.join("plugin.toml"), manifest)?;
    bench.cofferdam.ok(["plugin", "add", &dir.display().to_string()])?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    let refused = bench.cofferdam.fails(exit::REFUSED, ["pull", &image, "--inspect", "needy"])?.has_hint()?;
    ensure!(refused.err().contains("cofferdam plugin grant needy --read /etc"), "{}", refused.err());
    bench.cofferdam.ok(["plugin", "grant", "needy", "--read", "/etc"])?;
    bench.cofferdam.ok(["pull", &image, "--inspect", "needy"])?;
    Ok(())
}

/// A file of settings or rules that is too long is not cut: what is behind the cut may be what refuses.
#[test]
fn nothing_of_a_policy_is_cut_off() -> Result<()> {
    let mut bench = Bench::new()?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    let file = bench.scratch.join("long");
    std::fs::write(&file, "x".repeat(20_000))?;
    let setting = format!(
        "[[policy]]\nimages = ['**']\nverify = ['c']\n[policy.settings.c]\nkey = {{ file = '{}' }}\n",
        file.display()
    );
    let config = bench.config(&setting)?.display().to_string();
    bench.cofferdam.fails(exit::REFUSED, ["pull", &image, "--config", &config])?;
    let config = bench.config(&format!("# {}\n", "x".repeat(2 << 20)))?.display().to_string();
    bench.cofferdam.fails(exit::USAGE, ["pull", &image, "--config", &config])?;
    Ok(())
}

//! `create`: a container from an image or a file.

use std::path::PathBuf;

use clap::Args;
use kube::Resource;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Map, Value, json};
use stoppablecontainer_api::{StoppableContainer, whole_quantity};

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::session::{FIELD_MANAGER, Session};
use crate::units;
use crate::wait::{Goal, Target, conclude, wait_for};

use super::flags::{DryRun, DryRunFlag, WaitFlags};

/// Name of the container if the file does not name it.
const MAIN: &str = "main";
/// Resource of `--gpu NUMBER`.
const GPU: &str = "nvidia.com/gpu";

/// Arguments of `create`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc create dev --image ubuntu:22.04 --cpu 2 --memory 4Gi -- sleep \
                        infinity\n  kubectl stopc create web -f pod.yaml --size 20Gi\n  kubectl stopc create web --image \
                        nginx --dry-run=client -o yaml > web.yaml"
)]
pub struct CreateArgs {
    /// Name of the container. [default: the name in the file]
    #[arg(value_name = "NAME", required_unless_present = "file")]
    pub name: Option<String>,
    /// Image of the container.
    #[arg(long, value_name = "IMAGE", required_unless_present = "file")]
    pub image: Option<String>,
    /// File with a StoppableContainer or a Pod, in YAML or JSON; `-` is standard input.
    #[arg(short, long = "filename", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// CPU: request and limit, as in 500m or 2.
    #[arg(long, value_name = "QUANTITY", value_parser = quantity)]
    pub cpu: Option<String>,
    /// Memory: request and limit, as in 4Gi.
    #[arg(long, value_name = "QUANTITY", value_parser = quantity)]
    pub memory: Option<String>,
    /// GPUs: a number, or RESOURCE=NUMBER for others than nvidia.com/gpu.
    #[arg(long, value_name = "NUMBER", value_parser = gpu)]
    pub gpu: Option<(String, String)>,
    /// Limit of the kept files (ephemeral-storage), as in 20Gi.
    #[arg(long, value_name = "QUANTITY", value_parser = quantity)]
    pub size: Option<String>,
    /// Environment variable NAME=VALUE. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Labels of the object and its pod, as in app=web,tier=test.
    #[arg(short = 'l', long, value_name = "LABELS", value_delimiter = ',', value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Creates it stopped: the image is pulled, and nothing runs.
    #[arg(long)]
    pub stopped: bool,
    /// The words behind `--` replace the image's ENTRYPOINT, too, and not only its CMD.
    #[arg(long)]
    pub command: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitFlags,
    /// Dry run.
    #[command(flatten)]
    pub dry_run: DryRunFlag,
    /// Prints the object: yaml, json, name or jsonpath=TEMPLATE.
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Arguments of the container, instead of the image's CMD.
    #[arg(last = true, value_name = "CMD")]
    pub words: Vec<String>,
}

/// `create`
///
/// # Errors
/// If the object is refused, or does not run in the end.
pub async fn run(session: &mut Session, args: &CreateArgs) -> Result<(), Failure> {
    let file = args.file.as_ref().map(read).transpose()?;
    let value = object(args, file, &session.namespace)?;
    let dry_run = args.dry_run.dry_run;
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let stored = if dry_run == DryRun::Client {
        value
    } else {
        create(session, &value, dry_run).await?
    };
    if let Some(format) = &args.output {
        let text = output::objects(format, vec![stored.clone()], true)?;
        session.screen.print_raw(&text);
    }
    if dry_run.is_dry() || !args.wait.waits() {
        if args.output.is_none() {
            let line = format!("stoppablecontainer/{name} created{}", dry_run.suffix());
            session.screen.print(&line);
        }
        return Ok(());
    }
    let stored: StoppableContainer = serde_json::from_value(stored)
        .map_err(|error| Failure::failed(format!("cannot read the created object: {error}")))?;
    let goal = if stored.spec.running {
        Goal::Running
    } else {
        Goal::Stopped
    };
    let target = Target::of(&stored, &session.namespace);
    let quiet = args.output.is_some();
    let timeout = args.wait.timeout;
    let outcomes = wait_for(session, &[target], &goal, timeout, |session, target, time| {
        if !quiet {
            let text = format!(
                "stoppablecontainer/{} created, {} ({})",
                target.shown,
                goal.adjective(),
                units::elapsed(time)
            );
            session.screen.print(&text);
        }
    })
    .await?;
    conclude(outcomes, &goal, timeout, Vec::new())
}

async fn create(session: &Session, value: &Value, dry_run: DryRun) -> Result<Value, Failure> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let what = format!("create {name}");
    let kind = kube::api::ApiResource::erase::<StoppableContainer>(&());
    let api: kube::Api<kube::api::DynamicObject> =
        kube::Api::namespaced_with(session.client.clone(), namespace, &kind);
    let object = serde_json::from_value(value.clone())
        .map_err(|error| Failure::failed(format!("cannot {what}: {error}")))?;
    let params = PostParams {
        dry_run: dry_run == DryRun::Server,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    };
    match api.create(&params, &object).await {
        Ok(stored) => Ok(serde_json::to_value(stored).unwrap_or_default()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Err(Failure::failed(format!(
            "cannot {what}: it exists already; start it with `kubectl stopc start {name}`, or choose another name"
        ))),
        Err(error) => Err(session.failure(&what, &error).await),
    }
}

fn read(path: &PathBuf) -> Result<Value, Failure> {
    let shown = path.display();
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::failed(format!("cannot read {shown}: {error}")))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| Failure::failed(format!("{shown} is not one YAML object: {error}")))
}

/// The object to create. Pure.
fn object(args: &CreateArgs, file: Option<Value>, namespace: &str) -> Result<Value, Failure> {
    let mut object = match file {
        None => json!({ "metadata": {}, "spec": { "template": { "spec": {} } } }),
        Some(file) => from_file(file)?,
    };
    object["apiVersion"] = json!(StoppableContainer::api_version(&()));
    object["kind"] = json!(StoppableContainer::kind(&()));
    if let Some(name) = &args.name {
        object["metadata"]["name"] = json!(name);
    }
    if !object["metadata"]["name"].is_string() {
        return Err(Failure::usage(
            "the file does not name the object; name it on the command line",
        ));
    }
    if !object["metadata"]["namespace"].is_string() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if args.stopped || !object["spec"]["running"].is_boolean() {
        object["spec"]["running"] = json!(!args.stopped);
    }
    for (key, value) in &args.labels {
        object["metadata"]["labels"][key] = json!(value);
        object["spec"]["template"]["metadata"]["labels"][key] = json!(value);
    }
    let containers = &mut object["spec"]["template"]["spec"]["containers"];
    if containers.as_array().is_none_or(Vec::is_empty) {
        *containers = json!([{ "name": MAIN }]);
    }
    let main = &mut containers[0];
    if let Some(image) = &args.image {
        main["image"] = json!(image);
    }
    if !main["image"].is_string() {
        return Err(Failure::usage(
            "the first container of the file has no image; name it with --image",
        ));
    }
    if !args.words.is_empty() {
        if args.command {
            main["command"] = json!(args.words);
            drop_field(main, "args");
        } else {
            main["args"] = json!(args.words);
        }
    }
    for (name, value) in &args.env {
        let list = main["env"].as_array().cloned().unwrap_or_default();
        let others = list
            .into_iter()
            .filter(|variable| variable["name"] != name.as_str());
        let env: Vec<_> = others.chain([json!({ "name": name, "value": value })]).collect();
        main["env"] = json!(env);
    }
    let resources = Resources {
        cpu: args.cpu.as_deref(),
        memory: args.memory.as_deref(),
        size: args.size.as_deref(),
        gpu: args
            .gpu
            .as_ref()
            .map(|(name, number)| (name.as_str(), number.as_str())),
    };
    resources.apply(main);
    Ok(object)
}

fn drop_field(value: &mut Value, field: &str) {
    if let Some(fields) = value.as_object_mut() {
        fields.remove(field);
    }
}

/// A StoppableContainer as it is, or one whose template is a Pod.
fn from_file(file: Value) -> Result<Value, Failure> {
    match file["kind"].as_str() {
        Some("StoppableContainer") => Ok(file),
        Some("Pod") => {
            let metadata: ObjectMeta = serde_json::from_value(file["metadata"].clone())
                .map_err(|error| Failure::failed(format!("metadata of the Pod: {error}")))?;
            let mut template = Map::new();
            for (field, map) in [("labels", metadata.labels), ("annotations", metadata.annotations)] {
                if let Some(map) = map {
                    template.insert(field.to_owned(), json!(map));
                }
            }
            let mut spec = file["spec"].clone();
            // The product sets them.
            drop_field(&mut spec, "nodeName");
            drop_field(&mut spec, "restartPolicy");
            let mut own = Map::new();
            for (field, value) in [("name", metadata.name), ("namespace", metadata.namespace)] {
                if let Some(value) = value {
                    own.insert(field.to_owned(), json!(value));
                }
            }
            Ok(json!({ "metadata": own, "spec": { "template": { "metadata": template, "spec": spec } } }))
        }
        other => Err(Failure::failed(format!(
            "the file has a {}; a StoppableContainer or a Pod is needed",
            other.unwrap_or("value without a kind")
        ))),
    }
}

/// Resources that flags set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resources<'a> {
    /// CPU, request and limit.
    pub cpu: Option<&'a str>,
    /// Memory, request and limit.
    pub memory: Option<&'a str>,
    /// Limit of the kept files.
    pub size: Option<&'a str>,
    /// Resource and number.
    pub gpu: Option<(&'a str, &'a str)>,
}

// === impl Resources ===

impl Resources<'_> {
    /// Sets them in a container; the others stay.
    pub(crate) fn apply(self, container: &mut Value) {
        for (name, value) in [("cpu", self.cpu), ("memory", self.memory)] {
            if let Some(value) = value {
                container["resources"]["requests"][name] = json!(value);
                container["resources"]["limits"][name] = json!(value);
            }
        }
        if let Some(size) = self.size {
            container["resources"]["limits"]["ephemeral-storage"] = json!(size);
        }
        if let Some((name, number)) = self.gpu {
            container["resources"]["limits"][name] = json!(number);
        }
    }
}

/// Checks a quantity.
pub(crate) fn quantity(text: &str) -> Result<String, String> {
    match whole_quantity(text) {
        Some(amount) if amount > 0 => Ok(text.to_owned()),
        _ => Err("a quantity is a positive number with an optional unit, as in 500m, 2 or 4Gi".to_owned()),
    }
}

fn gpu(text: &str) -> Result<(String, String), String> {
    let (name, number) = text.split_once('=').unwrap_or((GPU, text));
    match number.parse::<u32>() {
        Ok(count) if count > 0 && !name.is_empty() => Ok((name.to_owned(), number.to_owned())),
        _ => Err("GPUs are a positive number, or RESOURCE=NUMBER".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn made(words: &[&str], file: Option<Value>) -> Result<Value, Failure> {
        let args = Line::parse_from([&["create"], words].concat()).args;
        object(&args, file, "team")
    }

    #[test]
    fn flags_describe_the_whole_object() {
        let words = [
            "dev",
            "--image",
            "ubuntu:22.04",
            "--cpu",
            "2",
            "--memory",
            "4Gi",
            "--gpu",
            "1",
            "--size",
            "20Gi",
            "--env",
            "A=b=c",
            "-l",
            "app=dev,x=y",
            "--stopped",
            "--",
            "sleep",
            "infinity",
        ];
        assert_eq!(
            made(&words, None).unwrap(),
            json!({
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
                "metadata": { "name": "dev", "namespace": "team", "labels": { "app": "dev", "x": "y" } },
                "spec": {
                    "running": false,
                    "template": {
                        "metadata": { "labels": { "app": "dev", "x": "y" } },
                        "spec": { "containers": [{
                            "name": "main", "image": "ubuntu:22.04", "args": ["sleep", "infinity"],
                            "env": [{ "name": "A", "value": "b=c" }],
                            "resources": {
                                "requests": { "cpu": "2", "memory": "4Gi" },
                                "limits": {
                                    "cpu": "2", "memory": "4Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "1",
                                },
                            },
                        }] },
                    },
                },
            })
        );
    }

    #[test]
    fn a_pod_becomes_the_template() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web", "labels": { "app": "web" }, "uid": "x" },
            "spec": {
                "nodeName": "node1", "restartPolicy": "Never",
                "containers": [{ "name": "nginx", "image": "nginx", "args": ["a"] }, { "name": "side", "image": "s" }],
            },
        });
        let made = made(
            &["--image", "nginx:1.25", "-f", "pod.yaml", "--command", "--", "sh"],
            Some(pod),
        )
        .unwrap();
        assert_eq!(
            made["metadata"],
            json!({ "name": "web", "namespace": "team" }),
            "its labels are the pod's"
        );
        assert_eq!(made["spec"]["running"], true);
        assert_eq!(
            made["spec"]["template"]["metadata"],
            json!({ "labels": { "app": "web" } })
        );
        assert_eq!(
            made["spec"]["template"]["spec"],
            json!({ "containers": [
                { "name": "nginx", "image": "nginx:1.25", "command": ["sh"] }, { "name": "side", "image": "s" },
            ]})
        );
    }

    #[test]
    fn what_is_missing_is_an_error_of_usage() {
        let nameless = json!({ "kind": "StoppableContainer", "metadata": {}, "spec": {} });
        assert_eq!(made(&["-f", "x"], Some(nameless)).unwrap_err().exit_code(), 2);
        let imageless = json!({ "kind": "StoppableContainer", "metadata": { "name": "a" }, "spec": {} });
        assert_eq!(made(&["-f", "x"], Some(imageless)).unwrap_err().exit_code(), 2);
        let other = json!({ "kind": "Deployment" });
        assert!(
            made(&["-f", "x"], Some(other))
                .unwrap_err()
                .to_string()
                .contains("Deployment")
        );
        for words in [
            &["create"][..],
            &["create", "a"],
            &["create", "a", "--image", "i", "--cpu", "much"],
        ] {
            assert!(Line::try_parse_from(words).is_err(), "{words:?}");
        }
    }
}

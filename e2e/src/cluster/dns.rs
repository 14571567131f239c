//! Cluster DNS: CoreDNS as a process of the node behind the usual Service.
//!
//! A process and not a pod: it is up before the first pod, needs no image to be imported (76 MB), and
//! the mesh's own pods can resolve from their first moment. To pods it looks the same: `kube-dns` in
//! kube-system, at the address that the kubelet writes into their resolv.conf.

use super::node::{DNS_SERVICE, Node};

/// The Service, its one endpoint and CoreDNS's rights.
pub fn manifests(node: &Node) -> String {
    format!(
        r#"apiVersion: v1
kind: Service
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {{k8s-app: kube-dns, kubernetes.io/name: CoreDNS}}
spec:
  clusterIP: {DNS_SERVICE}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-node
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns, endpointslice.kubernetes.io/managed-by: meshwright-e2e}}
addressType: IPv4
endpoints:
- addresses: ["{}"]
  conditions: {{ready: true}}
ports:
- {{name: dns, port: 53, protocol: UDP}}
- {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: meshwright-e2e-dns}}
rules:
- apiGroups: [""]
  resources: [services, pods, namespaces]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: meshwright-e2e-dns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: meshwright-e2e-dns}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: User, name: "meshwright:dns"}}
"#,
        node.address()
    )
}

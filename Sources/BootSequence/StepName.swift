/// The steps of a boot, in their order, and what the orchestrator does with backups.
public enum StepName: String, Sendable, Codable, CaseIterable {
    case recover, identify, settle, restore, sync, render, check
    case switchRelease = "switch"
    case prove, announce
    case backup, verify, list, prune
}

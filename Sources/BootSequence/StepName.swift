/// The steps of a boot, in their order.
public enum StepName: String, Sendable, Codable, CaseIterable {
    case recover, identify, settle, restore, sync, render, check
    case switchRelease = "switch"
    case prove, announce
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A token that takes a fee of each transfer, or refuses them all, as it is told: what a mirror must find out by itself.
contract Odd {
    string public name = "Odd";
    string public symbol = "ODD";
    uint8 public decimals = 18;
    uint256 public totalSupply;
    uint256 public feeBps;
    bool public paused;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    function mint(address to, uint256 value) external {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function set(uint256 fee, bool stopped) external {
        feeBps = fee;
        paused = stopped;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        return _move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        allowance[from][msg.sender] -= value;
        return _move(from, to, value);
    }

    function _move(address from, address to, uint256 value) private returns (bool) {
        require(!paused, "paused");
        balanceOf[from] -= value;
        uint256 arrives = value - (value * feeBps) / 10000;
        balanceOf[to] += arrives;
        emit Transfer(from, to, arrives);
        return true;
    }
}
